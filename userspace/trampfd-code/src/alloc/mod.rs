//! Small blocks of code, as malloc.
