"""The PC: CPU, memory, buses, devices, and the debugger's API over them. Knows no debugger protocol and no terminal."""
