"""One page of results, from the JSON files that the measuring commands wrote.

results.py    the files of a folder, read and checked
section.py    what a page is made of: sections, tables, marked figures
bench.py, simulation.py, check.py, doctor.py   each kind of file as a section
plots.py      bar charts as SVG
html.py       the page, self-contained
markdown.py   the same tables for docs/results.md
"""
