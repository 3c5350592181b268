// The closure takes what the C function takes.
use trampfd::Closure;

fn main() {
    let _: Closure<unsafe extern "C" fn(i32, f64) -> i32> = Closure::from_fn(|a: i32| a).unwrap();
}
