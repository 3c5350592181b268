// What borrows cannot be for ever.
use trampfd::Closure;

fn main() {
    let number = 41;
    let f = Closure::local(|a: i32| a + number).unwrap();
    let _ = f.leak();
}
