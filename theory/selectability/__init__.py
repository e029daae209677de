"""Which keys attention can select."""
