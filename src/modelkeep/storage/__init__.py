"""Where bytes live: object stores, and the blobs kept in them.

Above this room nothing knows whether a store is a folder, memory or a bucket.
"""
