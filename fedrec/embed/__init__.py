"""The client inside an app: recommends on the device, offline, from the first second. Needs numpy and no torch."""
