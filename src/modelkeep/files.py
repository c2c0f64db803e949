"""The front door for single files: opened, written, converted, looked into and judged, without a store."""
