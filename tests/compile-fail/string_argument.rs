// C has no `String`.
use trampfd::Closure;

fn main() {
    let _ = Closure::from_fn(|text: String| text.len());
}
