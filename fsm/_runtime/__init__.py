"""The one code path behind every manager, synchronous and asynchronous."""
