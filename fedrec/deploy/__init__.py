"""A federation across machines: a site for the server, folders for devices, and one door between them."""
