// A closure that changes what it captures goes to `Closure::local_mut`.
use trampfd::Closure;

fn main() {
    let mut sum = 0;
    let _ = Closure::from_fn(move |a: i32| sum += a);
}
