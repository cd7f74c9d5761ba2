"""A reader's corner: recommends from a pack, on this machine, in a browser. An example of `fedrec.Recommender`."""
