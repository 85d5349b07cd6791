"""What the functions share: decoding what comes in, and how answers and errors look."""
