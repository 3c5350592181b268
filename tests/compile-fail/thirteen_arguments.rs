// Twelve are the most.
use trampfd::Closure;

fn main() {
    let _ = Closure::from_fn(
        |_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8| (),
    );
}
