// Any thread may call the pointer, and gets the data.
use std::cell::Cell;
use trampfd::Closure;

fn main() {
    let _ = Closure::new(|a: i32, sum: &Cell<i32>| sum.set(sum.get() + a), Cell::new(0));
}
