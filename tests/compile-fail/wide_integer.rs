// An u128 takes two registers.
use trampfd::Closure;

fn main() {
    let _ = Closure::from_fn(|a: u128| a as u64);
}
