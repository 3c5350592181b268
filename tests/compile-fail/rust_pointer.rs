// The pointer is for C.
use trampfd::Closure;

fn main() {
    let _: Closure<fn(i32) -> i32> = Closure::from_fn(|a: i32| a).unwrap();
}
