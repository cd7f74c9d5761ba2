"""The crossing between what a device knows and what a server may learn.

Pillars, which never import each other: `clipping` (what may be sent), `noise` (what hides it), `sampling` (who comes),
`accounting` (what it costs). `plan` couples them; `release`, `ledger`, `statement` and `audit` read the plan.
`terms` holds the words that all of them share, `conduct` the rules a strategy must keep.
"""
