// The types of the arguments are those of the C function, and here nobody says which.
use trampfd::Closure;

fn main() {
    let _ = Closure::from_fn(|_a| ());
}
