"""`pipellm doctor`: what this machine is, as far as PipeLLM cares, and what to do about it.

machine.py   what is known of a machine, as one frozen value
probe.py     reads it from the machine at hand; gpu.py, software.py and sealing.py are its parts
copying.py   one copy to a confidential GPU with the provider attached, in a process of its own
checks.py    judges a machine: one function per check, all pure; gpu_checks.py has those on the GPU
report.py    the table and the JSON
"""
