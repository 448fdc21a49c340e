"""What the user is shown: standard output and standard error.

console.py   where it is shown
progress.py  how far the work has come
"""
