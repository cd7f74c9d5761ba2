"""A study as something to read: composed once, rendered as HTML, Markdown and files."""
