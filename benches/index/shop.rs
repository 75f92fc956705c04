//! A shop of any size, drawn item by item: nothing of it is kept.

use reg4rec::catalog::{Index, IndexBuilder, Row};
use reg4rec::domain::{CodeShape, CodeTable};

/// M and D of every shop.
pub const SHAPE: CodeShape = CodeShape { codebooks: 8, entries: 256 };
/// Clusters of like items; the k-th has a share of items in proportion to k^-0.7, the largest 3 %.
const CLUSTERS: usize = 2_000;
const STEEPNESS: f64 = 0.7;
/// An item has each token of its cluster's own code with this probability, else any token. So the token of a random item is
/// held by .5 % of all items, a pair of its tokens by .09 %, three of them by .05 %: much as in a bundle that was fitted to
/// Amazon Beauty, where it is .48 %, .07 % and .03 %.
const LOYALTY: f64 = 0.7;
/// Larger shops have no titles, which take most of the memory while an index is built.
const MOST_TITLED: usize = 20_000_000;
/// Items that are drawn at a time.
const BATCH: usize = 65_536;

/// How codes are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Around the codes of clusters of unlike size.
    Clustered,
    /// Every token of every item alike likely.
    Uniform,
}

/// A random number that follows from what it is asked for.
pub fn draw(words: [u64; 3]) -> u64 {
    words.iter().fold(0x9E37_79B9_7F4A_7C15, |state, word| {
        let mixed = (state ^ word).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB) ^ (mixed >> 32)
    })
}

/// Between 0 and 1.
fn share(words: [u64; 3]) -> f64 {
    (draw(words) >> 11) as f64 / (1u64 << 53) as f64
}

/// What is drawn of one item.
pub struct Drawn {
    pub id: String,
    title: Option<String>,
    brand: Option<String>,
    path: [String; 3],
    price: Option<f32>,
    eligible: bool,
    category: u32,
    prior: f32,
    pub code: [u16; 8],
}

/// Draws items.
pub struct Shop {
    pub items: usize,
    codes: Codes,
    /// Up to which share of items each cluster reaches.
    clusters: Vec<f64>,
}

impl std::fmt::Display for Shop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.codes)
    }
}

impl Shop {
    pub fn new(items: usize, codes: Codes) -> Self {
        let weights = (1..=CLUSTERS).map(|k| (k as f64).powf(-STEEPNESS));
        let total: f64 = weights.clone().sum();
        let mut reached = 0.0;
        let clusters = weights.map(|weight| {
            reached += weight / total;
            reached
        });
        Self { items, codes, clusters: clusters.collect() }
    }

    /// Ten letters and digits, as Amazon's.
    pub fn id(n: usize) -> String {
        const LETTERS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        // A step that shares no factor with the number of ids visits each once.
        let mut rest = (n as u64).wrapping_mul(1_000_003) % 36u64.pow(9);
        let mut id = vec![b'B'; 10];
        for letter in id.iter_mut().skip(1) {
            *letter = LETTERS[(rest % 36) as usize];
            rest /= 36;
        }
        String::from_utf8(id).unwrap()
    }

    fn cluster(&self, n: usize) -> usize {
        self.clusters.partition_point(|reached| *reached < share([n as u64, 0, 1])).min(CLUSTERS - 1)
    }

    fn code(&self, n: usize) -> [u16; 8] {
        let of = |what: u64| share([n as u64, what, 1]);
        let (cluster, mut code) = (self.cluster(n), [0; 8]);
        for (r, entry) in code.iter_mut().enumerate() {
            let own = self.codes == Codes::Clustered && of(100 + r as u64) < LOYALTY;
            let drawn = if own { draw([cluster as u64, r as u64, 2]) } else { draw([n as u64, r as u64, 3]) };
            *entry = (drawn >> 20) as u16 % SHAPE.entries as u16;
        }
        code
    }

    /// The item that comes n-th.
    pub fn item(&self, n: usize) -> Drawn {
        let of = |what: u64| share([n as u64, what, 1]);
        let (cluster, code) = (self.cluster(n), self.code(n));
        let brands = (self.items / 100).max(10) as f64;
        let words = draw([n as u64, 7, 4]);
        Drawn {
            id: Self::id(n),
            title: (self.items <= MOST_TITLED && of(1) < 0.9)
                .then(|| format!("A thing of the sort {cluster} for you, {words:016x}")),
            // Few large brands, many small ones.
            brand: (of(2) < 0.85).then(|| format!("Brand {}", (brands.powf(of(3)) - 1.0) as u64)),
            path: [cluster / 100, cluster / 10, cluster].map(|level| format!("Category {level}")),
            price: (of(4) < 0.8).then(|| ((of(5) * 6.0).exp() as f32 * 100.0).round() / 100.0),
            eligible: of(6) < 0.97,
            category: cluster as u32,
            prior: -16.0 - (of(7) * 8.0) as f32,
            code,
        }
    }

    /// Builds the index, one for look-ups of paths if so wished; answers also the seconds that it took, without those in
    /// which items were drawn.
    pub fn build(&self, for_paths: bool) -> (Index, f64) {
        let names = (0..CLUSTERS).map(|cluster| format!("Category {cluster}")).collect();
        let (mut builder, mut codes) = (IndexBuilder::new(names), CodeTable::empty(SHAPE).unwrap());
        if for_paths {
            builder = builder.for_paths();
        }
        let mut seconds = 0.0;
        for first in (0..self.items).step_by(BATCH) {
            use rayon::prelude::*;
            let batch = first..self.items.min(first + BATCH);
            let drawn: Vec<Drawn> = batch.into_par_iter().map(|n| self.item(n)).collect();
            let began = std::time::Instant::now();
            for item in &drawn {
                let row = Row {
                    id: &item.id,
                    title: item.title.as_deref(),
                    brand: item.brand.as_deref(),
                    price: item.price,
                    eligible: item.eligible,
                    category: item.category,
                    prior: item.prior,
                };
                builder.push(&row, item.path.iter().map(String::as_str)).unwrap();
                codes.extend(&item.code).unwrap();
            }
            seconds += began.elapsed().as_secs_f64();
        }
        let began = std::time::Instant::now();
        let index = builder.finish(codes, "bench".into()).unwrap();
        (index, seconds + began.elapsed().as_secs_f64())
    }

    /// The names of the category head's classes.
    pub fn category_names() -> Vec<String> {
        (0..CLUSTERS).map(|cluster| format!("Category {cluster}")).collect()
    }
}
