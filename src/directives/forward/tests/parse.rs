//! What the Corefile may say, and what is said about what it may not.
