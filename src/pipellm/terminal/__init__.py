"""What the user is shown: standard output and standard error.

output.py    standard output that may be full or closed; complaints
console.py   tables and text
progress.py  how far the work has come
text.py      text of others, fit to be shown
"""
