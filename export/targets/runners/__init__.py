"""Code that packages hold a copy of: it runs in the environments of servers, which have no mlpx."""
