"""The axes of interactivity, a file each; every file here is loaded with the package."""
