//! What the synthetic shop sells, in words.
//!
//! An aisle is a purpose: its shelves go together, so that who buys from one is soon at the next.

/// How people buy from a shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Seen and bought; bought again when used up.
    Impulse,
    /// Compared with others first, bought once.
    Considered,
}

/// The finest level of the category tree.
pub(super) struct Shelf {
    pub(super) department: &'static str,
    pub(super) aisle: &'static str,
    pub(super) name: &'static str,
    /// What things are called.
    pub(super) nouns: [&'static str; 4],
    /// What sets one apart from the next.
    pub(super) details: [&'static str; 4],
    /// A middling price.
    pub(super) price: f32,
    pub(super) habit: Habit,
}

const fn shelf(
    place: [&'static str; 3],
    nouns: [&'static str; 4],
    details: [&'static str; 4],
    price: f32,
    habit: Habit,
) -> Shelf {
    let [department, aisle, name] = place;
    Shelf { department, aisle, name, nouns, details, price, habit }
}

use Habit::{Considered, Impulse};

/// All shelves; those of one aisle stand together.
pub(super) const SHELVES: [Shelf; 36] = [
    shelf(
        ["Kitchen", "Coffee & Tea", "Coffee"],
        ["Espresso Beans", "Filter Coffee", "Ground Coffee", "Coffee Capsules"],
        ["Dark Roast", "Medium Roast", "Single Origin", "Decaf"],
        12.0,
        Impulse,
    ),
    shelf(
        ["Kitchen", "Coffee & Tea", "Coffee Makers"],
        ["Espresso Machine", "French Press", "Pour-Over Set", "Moka Pot"],
        ["with Milk Frother", "Double Wall", "6 Cups", "with Grinder"],
        90.0,
        Considered,
    ),
    shelf(
        ["Kitchen", "Coffee & Tea", "Cups & Mugs"],
        ["Mug", "Espresso Cup Set", "Thermo Cup", "Tea Glass Set"],
        ["350 ml", "Set of 4", "with Lid", "Stoneware"],
        18.0,
        Impulse,
    ),
    shelf(
        ["Kitchen", "Cookware", "Pans"],
        ["Frying Pan", "Cast Iron Skillet", "Wok", "Saute Pan"],
        ["28 cm", "Non-Stick", "for Induction", "with Glass Lid"],
        55.0,
        Considered,
    ),
    shelf(
        ["Kitchen", "Cookware", "Knives"],
        ["Chef's Knife", "Bread Knife", "Paring Knife", "Santoku"],
        ["Damascus Steel", "20 cm Blade", "with Sheath", "Walnut Handle"],
        48.0,
        Considered,
    ),
    shelf(
        ["Kitchen", "Cookware", "Spices & Oils"],
        ["Olive Oil", "Pepper Mix", "Sea Salt", "Curry Blend"],
        ["Cold Pressed", "Refill Pack", "Smoked", "Coarse"],
        9.0,
        Impulse,
    ),
    shelf(
        ["Beauty", "Skin Care", "Moisturizers"],
        ["Day Cream", "Night Cream", "Face Lotion", "Hydrating Gel"],
        ["with Hyaluronic Acid", "SPF 30", "for Dry Skin", "Fragrance Free"],
        22.0,
        Impulse,
    ),
    shelf(
        ["Beauty", "Skin Care", "Cleansers"],
        ["Face Wash", "Micellar Water", "Cleansing Balm", "Exfoliating Scrub"],
        ["for Sensitive Skin", "with Aloe", "with Salicylic Acid", "200 ml"],
        14.0,
        Impulse,
    ),
    shelf(
        ["Beauty", "Skin Care", "Serums"],
        ["Vitamin C Serum", "Retinol Serum", "Niacinamide Drops", "Eye Serum"],
        ["30 ml", "Overnight", "with Peptides", "Brightening"],
        34.0,
        Considered,
    ),
    shelf(
        ["Beauty", "Hair", "Shampoo"],
        ["Shampoo", "Conditioner", "Dry Shampoo", "Scalp Scrub"],
        ["for Curly Hair", "Volumizing", "Anti-Dandruff", "Color Protect"],
        11.0,
        Impulse,
    ),
    shelf(
        ["Beauty", "Hair", "Styling"],
        ["Curl Cream", "Hair Wax", "Heat Protect Spray", "Hair Oil"],
        ["Strong Hold", "with Argan Oil", "Matte", "Frizz Control"],
        13.0,
        Impulse,
    ),
    shelf(
        ["Beauty", "Hair", "Dryers & Irons"],
        ["Hair Dryer", "Straightener", "Curling Wand", "Hot Air Brush"],
        ["Ionic", "Ceramic", "Foldable", "2000 W"],
        65.0,
        Considered,
    ),
    shelf(
        ["Outdoors", "Camping", "Tents"],
        ["Dome Tent", "Trekking Tent", "Family Tent", "Tarp Shelter"],
        ["2 Person", "4 Person", "3 Season", "Ultralight"],
        180.0,
        Considered,
    ),
    shelf(
        ["Outdoors", "Camping", "Sleeping Bags"],
        ["Sleeping Bag", "Sleeping Mat", "Camp Pillow", "Hammock"],
        ["Down Filled", "Self-Inflating", "-5 C Comfort", "Compact"],
        75.0,
        Considered,
    ),
    shelf(
        ["Outdoors", "Camping", "Camp Kitchen"],
        ["Gas Stove", "Cooking Set", "Water Filter", "Titanium Spork"],
        ["Piezo Ignition", "for 2", "Nesting", "1 Liter"],
        32.0,
        Impulse,
    ),
    shelf(
        ["Outdoors", "Cycling", "Lights & Locks"],
        ["Front Light", "Rear Light", "Folding Lock", "Chain Lock"],
        ["USB Rechargeable", "800 Lumen", "Level 10", "with Bracket"],
        36.0,
        Considered,
    ),
    shelf(
        ["Outdoors", "Cycling", "Cycle Wear"],
        ["Bib Shorts", "Jersey", "Rain Jacket", "Cycling Gloves"],
        ["Padded", "Windproof", "Reflective", "Short Sleeve"],
        58.0,
        Considered,
    ),
    shelf(
        ["Outdoors", "Cycling", "Bike Care"],
        ["Chain Lube", "Inner Tube", "Multi-Tool", "Tire Lever Set"],
        ["700c", "Dry Weather", "16 in 1", "Puncture Resistant"],
        10.0,
        Impulse,
    ),
    shelf(
        ["Electronics", "Audio", "Headphones"],
        ["Over-Ear Headphones", "In-Ear Buds", "Studio Headphones", "Neckband Earphones"],
        ["Noise Cancelling", "40 h Battery", "Wired", "with Microphone"],
        120.0,
        Considered,
    ),
    shelf(
        ["Electronics", "Audio", "Speakers"],
        ["Bluetooth Speaker", "Bookshelf Speakers", "Soundbar", "Shower Speaker"],
        ["Waterproof", "Stereo Pair", "with Subwoofer", "360 Sound"],
        110.0,
        Considered,
    ),
    shelf(
        ["Electronics", "Audio", "Cables & Stands"],
        ["Audio Cable", "Headphone Stand", "Speaker Mount", "Carry Case"],
        ["3.5 mm", "Braided 2 m", "Wall Mounted", "Hard Shell"],
        15.0,
        Impulse,
    ),
    shelf(
        ["Electronics", "Photography", "Cameras"],
        ["Mirrorless Camera", "Compact Camera", "Instant Camera", "Action Camera"],
        ["24 MP", "4K Video", "with Kit Lens", "Stabilized"],
        480.0,
        Considered,
    ),
    shelf(
        ["Electronics", "Photography", "Tripods"],
        ["Tripod", "Monopod", "Phone Gimbal", "Table Tripod"],
        ["Carbon Fiber", "Ball Head", "Foldable", "160 cm"],
        70.0,
        Considered,
    ),
    shelf(
        ["Electronics", "Photography", "Cards & Film"],
        ["SD Card", "Instant Film", "Lens Cloth", "Spare Battery"],
        ["128 GB", "Twin Pack", "V60", "with Charger"],
        24.0,
        Impulse,
    ),
    shelf(
        ["Toys", "Building", "Brick Sets"],
        ["Castle Set", "Space Station Set", "Race Car Set", "City Street Set"],
        ["450 Pieces", "1200 Pieces", "with Motor", "Age 8+"],
        49.0,
        Considered,
    ),
    shelf(
        ["Toys", "Building", "Train Sets"],
        ["Wooden Train", "Electric Train", "Track Extension", "Station Building"],
        ["Starter Box", "with Sound", "40 Pieces", "Age 3+"],
        42.0,
        Considered,
    ),
    shelf(
        ["Toys", "Building", "Figures"],
        ["Knight Figure", "Dinosaur Figure", "Astronaut Figure", "Farm Animal"],
        ["Hand Painted", "Poseable", "Set of 3", "Collector Edition"],
        8.0,
        Impulse,
    ),
    shelf(
        ["Toys", "Games", "Board Games"],
        ["Strategy Game", "Family Board Game", "Cooperative Game", "Party Game"],
        ["2-4 Players", "60 Minutes", "Expansion", "Anniversary Edition"],
        36.0,
        Considered,
    ),
    shelf(
        ["Toys", "Games", "Puzzles"],
        ["Jigsaw Puzzle", "3D Puzzle", "Puzzle Cube", "Brain Teaser"],
        ["1000 Pieces", "500 Pieces", "Panorama", "Wooden"],
        17.0,
        Impulse,
    ),
    shelf(
        ["Toys", "Games", "Card Games"],
        ["Card Game", "Playing Cards", "Trick-Taking Game", "Memory Game"],
        ["Travel Tin", "Linen Finish", "2 Players", "Age 6+"],
        11.0,
        Impulse,
    ),
    shelf(
        ["Garden", "Growing", "Seeds"],
        ["Tomato Seeds", "Herb Seeds", "Wildflower Mix", "Chili Seeds"],
        ["Heirloom", "for Balconies", "Bee Friendly", "Early Harvest"],
        4.0,
        Impulse,
    ),
    shelf(
        ["Garden", "Growing", "Pots"],
        ["Terracotta Pot", "Planter Box", "Hanging Basket", "Raised Bed"],
        ["30 cm", "with Saucer", "Self-Watering", "Frost Proof"],
        28.0,
        Impulse,
    ),
    shelf(
        ["Garden", "Growing", "Tools"],
        ["Pruning Shears", "Hand Trowel", "Watering Can", "Garden Fork"],
        ["Bypass", "Ash Handle", "10 Liter", "Rust Free"],
        26.0,
        Considered,
    ),
    shelf(
        ["Garden", "Terrace", "Grills"],
        ["Charcoal Grill", "Gas Grill", "Table Grill", "Pizza Oven"],
        ["3 Burner", "57 cm", "with Cover", "Portable"],
        210.0,
        Considered,
    ),
    shelf(
        ["Garden", "Terrace", "Grill Tools"],
        ["Grill Tongs", "Grill Thermometer", "Chimney Starter", "Grill Brush"],
        ["Stainless", "Wireless", "Extra Long", "Brass Bristles"],
        19.0,
        Impulse,
    ),
    shelf(
        ["Garden", "Terrace", "Outdoor Lighting"],
        ["String Lights", "Solar Lantern", "Path Light", "Torch Lamp"],
        ["Warm White", "Set of 6", "with Sensor", "10 m"],
        23.0,
        Impulse,
    ),
];

/// A taste that runs across all shelves, with what it says of a thing.
pub(super) const STYLES: [(&str, &str); 10] = [
    ("Organic", "made from certified organic materials, gentle and natural"),
    ("Vintage", "retro look with brass accents and a nostalgic feel"),
    ("Minimal", "plain lines, matte white, nothing that is not needed"),
    ("Pro", "built for professionals, high performance under daily load"),
    ("Travel", "small, light and packable, made for the road"),
    ("Junior", "sized and tested for children, bright colours"),
    ("Eco", "recycled, refillable and plastic free"),
    ("Royal", "luxury finish with gold details, comes in a gift box"),
    ("Sport", "rugged and sweat proof for active days"),
    ("Rustic", "hand finished wood and linen, country style"),
];

/// First halves of brand names.
pub(super) const BRAND_HEADS: [&str; 16] =
    ["Nor", "Alt", "Bel", "Cor", "Dun", "Eld", "Fal", "Gren", "Hal", "Ister", "Jor", "Kel", "Lun", "Mar", "Ost", "Var"];

/// Second halves of brand names.
pub(super) const BRAND_TAILS: [&str; 12] =
    ["vale", "mont", "haus", "wick", "ford", "ela", "ino", "dale", "berg", "rose", "line", "stad"];

/// Names of product lines.
pub(super) const LINES: [&str; 20] = [
    "Alba", "Nova", "Luma", "Terra", "Aria", "Onda", "Vega", "Mira", "Solis", "Brio", "Cala", "Duna", "Eos", "Fjord",
    "Gaia", "Halo", "Iris", "Juno", "Kite", "Lyra",
];
