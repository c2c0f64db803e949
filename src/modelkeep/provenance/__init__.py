"""Who vouches for a version, and what it is made of: signatures, policies, bills of materials."""
