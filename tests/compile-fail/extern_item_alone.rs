// The same without data.
use trampfd::Closure;

extern "C" fn handler(a: i32) -> i32 {
    a
}

fn main() {
    let _: Closure<unsafe extern "C" fn(i32) -> i32> = Closure::from_fn(handler).unwrap();
}
