// The pointer of a `Closure` may outlive the function; `Closure::local` may borrow.
use trampfd::Closure;

fn main() {
    let number = 41;
    let _ = Closure::from_fn(|a: i32| a + number);
}
