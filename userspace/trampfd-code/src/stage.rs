//! Memory for compilers that write where the code will run.
