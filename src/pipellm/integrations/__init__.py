"""Systems that swap through the device only if asked to, by their own extension points."""
