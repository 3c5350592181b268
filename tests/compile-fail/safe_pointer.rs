// A safe function pointer could be called when the closure is gone.
use trampfd::Closure;

fn main() {
    let f: Closure<extern "C" fn(i32) -> i32> = Closure::from_fn(|a: i32| a).unwrap();
    let _ = f.as_ptr()(1);
}
