// The types of the arguments are those of the C function, and nobody else says which.
use trampfd::Closure;

fn main() {
    let f = Closure::from_fn(|a, b| a + b).unwrap();
    let _ = unsafe { f.as_ptr()(1, 2) };
}
