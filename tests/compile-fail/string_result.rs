// C has no `String` to get back either.
use trampfd::Closure;

fn main() {
    let _ = Closure::from_fn(|a: i32| a.to_string());
}
