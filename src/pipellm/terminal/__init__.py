"""What the user is shown: standard output and standard error.

output.py    standard output that may be full or closed; complaints
console.py   where it is shown, and how wide that is
table.py     tables that lose nothing on a narrow terminal
progress.py  how far the work has come
text.py      text of others, fit to be shown
"""
