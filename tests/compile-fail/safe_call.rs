// The pointer does not keep the closure alive, so calling it is a promise.
use trampfd::Closure;

fn main() {
    let f = Closure::from_fn(|a: i32| a).unwrap();
    let _ = f.as_ptr()(1);
}
