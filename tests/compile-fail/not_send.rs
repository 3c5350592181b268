// Any thread may call the pointer.
use std::rc::Rc;
use trampfd::Closure;

fn main() {
    let count = Rc::new(1);
    let _ = Closure::from_fn(move |a: i32| a + *count);
}
