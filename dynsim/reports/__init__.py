"""Reports: one page to open, and moving pictures, of what other rooms computed.

`dynsim.report(result, path)` writes the page of a trajectory, several, a profile or a search. A
`page.Page` is made of views (`views`: curves, spectrum, sphere, attention, ...) by frame; `runs`,
`profiles`, `searches` and `sweeps` say what stands on the page of each. `states` chooses the layers
that are shown, and `animation` draws them as GIF or MP4. README.md tells how a page is made.
"""
