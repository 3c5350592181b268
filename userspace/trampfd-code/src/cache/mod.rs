//! Batches of code in files, verified, mapped R-X straight from them.
