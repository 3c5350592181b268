// A reference's lifetime would be the C caller's choice.
use trampfd::Closure;

fn main() {
    let _ = Closure::from_fn(|a: &i32| *a);
}
