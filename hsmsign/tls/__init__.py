"""TLS for applications: device keys under the stacks that people have, who is at the other end, what it may do."""
