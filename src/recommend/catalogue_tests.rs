//! Facts about the catalogue while it serves, over a network made of a hash function.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::tests::{House, house_with, ids, series, variant, viewed};
use super::{CacheConfig, Catalogue, Newcomers, Place, RecommendConfig, Variant};
use crate::catalog::CatalogueConfig;
use crate::domain::{CatalogChange, DescribedItem, Failure, Filter, Item, RecommendRequest};
use crate::engine::fake::{FakeModel, index};

/// Every item has its place at that of i7, with a code that its text is the last entry of.
#[derive(Debug)]
struct LikeSeven;

impl Newcomers for LikeSeven {
    fn fault(&self, item: &DescribedItem) -> Option<String> {
        let found = item.embedding.as_ref()?.len();
        (found != 2).then(|| format!("{found} numbers, expected 2"))
    }

    fn place(&self, items: &[&DescribedItem]) -> Result<Vec<Place>, String> {
        let place = |item: &&DescribedItem| {
            let mut code = index(10).codes().code(7).to_vec();
            *code.last_mut().unwrap() = item.text.as_ref().map_or(0, |text| text.len() as u16 % 4);
            Place { code, like: vec![(7, 1.0)], category: 1 }
        };
        Ok(items.iter().map(place).collect())
    }
}

fn described(id: &str, text: &str) -> DescribedItem {
    let item = Item {
        id: id.into(),
        title: Some(format!("Title {id}")),
        brand: Some("live".into()),
        categories: vec!["beauty".into()],
        price: Some(1.0),
        eligible: true,
    };
    DescribedItem { item, text: (!text.is_empty()).then(|| text.to_owned()), embedding: None }
}

fn upsert(id: &str, text: &str) -> CatalogChange {
    CatalogChange::Upsert(Box::new(described(id, text)))
}

fn remove(id: &str) -> CatalogChange {
    CatalogChange::Remove(id.into())
}

fn eligible(id: &str, eligible: bool) -> CatalogChange {
    CatalogChange::SetEligibility(id.into(), eligible)
}

/// Only what is of brand `live`.
fn live() -> RecommendRequest {
    let filter = Filter { include_brands: vec!["live".into()], ..Filter::default() };
    RecommendRequest { filter, ..viewed(&[3, 5]) }
}

struct Shop {
    house: House,
    home: TempDir,
}

impl Shop {
    async fn open(config: CatalogueConfig) -> Self {
        let cache = CacheConfig { entries: 1000, ..CacheConfig::default() };
        let house = house_with(FakeModel::default(), RecommendConfig { cache, ..RecommendConfig::default() }).await;
        let shop = Self { house, home: tempfile::tempdir().unwrap() };
        let main = shop.variant("7", 0).await;
        shop.house.recommender.set_variant(main).unwrap();
        let config = CatalogueConfig { path: shop.home.path().to_owned(), ..config };
        let catalogue = Catalogue::open(&config, &shop.house.registry).unwrap().unwrap();
        assert!(shop.house.recommender.open_catalogue(catalogue));
        shop
    }

    /// A version of the bundle, published so many seconds after 1970.
    async fn variant(&self, version: &str, created: u64) -> Variant {
        let plain = variant("main", FakeModel::default(), index(300), &self.house.metrics).await;
        Variant {
            newcomers: Some(Arc::new(LikeSeven)),
            bundle_version: version.into(),
            created: UNIX_EPOCH + Duration::from_secs(created),
            ..plain
        }
    }

    async fn change(&self, changes: Vec<CatalogChange>) -> Result<crate::domain::CatalogChanged, Failure> {
        self.house.recommender.change_items(changes).await
    }

    async fn answered(&self, request: RecommendRequest) -> Vec<String> {
        let answer = self.house.recommender.recommend(request, None).await.unwrap();
        ids(&answer).into_iter().map(str::to_owned).collect()
    }

    fn code(&self, id: &str) -> Vec<u16> {
        self.house.recommender.item(id).unwrap().code
    }

    /// Every id of the listing, `most` a page.
    fn listed(&self, most: usize) -> Vec<String> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = self.house.recommender.items(after.as_deref(), most).unwrap();
            assert!(page.items.len() <= most);
            ids.extend(page.items.into_iter().map(|item| item.described.item.id));
            match page.next {
                Some(next) => after = Some(next),
                None => return ids,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_the_answers_that_begin_after_it() {
    let shop = Shop::open(CatalogueConfig::default()).await;
    assert!(shop.answered(live()).await.is_empty());
    let changed = shop.change(vec![upsert("new", "a"), upsert("i9", "")]).await.unwrap();
    assert_eq!((changed.added, changed.changed, changed.unknown.len()), (1, 1, 0));
    let mut found = shop.answered(live()).await;
    found.sort();
    assert_eq!(found, ["i9", "new"]);
    let answer = shop.house.recommender.recommend(live(), None).await.unwrap();
    assert_eq!(answer.index_version, changed.index_version);
    assert!(changed.index_version.starts_with("index-1+"), "{}", changed.index_version);

    shop.change(vec![eligible("i9", false)]).await.unwrap();
    assert_eq!(shop.answered(live()).await, ["new"], "a cached answer, or one that is not eligible");
    let gone = shop.change(vec![remove("new"), remove("nobody"), eligible("nobody", true)]).await.unwrap();
    assert_eq!((gone.changed, gone.unknown), (1, vec!["nobody".to_owned(), "nobody".to_owned()]));
    assert!(shop.answered(live()).await.is_empty());
    assert!(matches!(shop.house.recommender.item("new"), Err(Failure::UnknownItem(_))));
    shop.change(vec![eligible("i9", true), upsert("new", "b")]).await.unwrap();
    assert_eq!(shop.answered(live()).await.len(), 2);
    assert_eq!(series(&shop.house.registry, r#"reg4rec_index_items{variant="main"}"#), 301.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_other_words_give_other_tokens() {
    let shop = Shop::open(CatalogueConfig::default()).await;
    let learnt = shop.code("i9");
    shop.change(vec![upsert("i9", "")]).await.unwrap();
    assert_eq!(shop.code("i9"), learnt, "other attributes alone gave other tokens");
    shop.change(vec![upsert("i9", "ab")]).await.unwrap();
    let told = shop.code("i9");
    assert_eq!(told, LikeSeven.place(&[&described("i9", "ab")]).unwrap()[0].code);
    shop.change(vec![eligible("i9", false), remove("i9")]).await.unwrap();
    shop.change(vec![upsert("i9", "abc")]).await.unwrap();
    assert_ne!(shop.code("i9"), told);
    let item = shop.house.recommender.item("i9").unwrap();
    assert!(item.learnt && item.changed_ms.is_some() && item.described.text.as_deref() == Some("abc"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overlay_is_folded_when_it_is_large_and_on_its_schedule() {
    let shop = Shop::open(CatalogueConfig { max_overlay: 3, fold_ms: 100, ..CatalogueConfig::default() }).await;
    let overlay = || series(&shop.house.registry, r#"reg4rec_index_overlay_items{variant="main"}"#);
    shop.change(vec![upsert("i9", "")]).await.unwrap();
    assert_eq!(overlay(), 1.0);
    shop.change(vec![eligible("i10", false), eligible("i11", false)]).await.unwrap();
    assert_eq!(overlay(), 0.0);
    shop.change(vec![eligible("i12", false)]).await.unwrap();
    let before = shop.answered(live()).await;
    let recommender = shop.house.recommender.clone();
    let tending = tokio::spawn(async move { recommender.tend_catalogue().await });
    while overlay() > 0.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tending.abort();
    assert_eq!(shop.answered(live()).await, before);
    let hidden = shop.answered(RecommendRequest { k: 1000, ..viewed(&[3]) }).await;
    assert!(["i10", "i11", "i12"].iter().all(|id| !hidden.iter().any(|found| found == id)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_holds_for_bundles_that_come_later_and_for_those_gone_back_to() {
    let shop = Shop::open(CatalogueConfig::default()).await;
    let learnt = shop.code("i9");
    shop.change(vec![upsert("new", "a"), upsert("i9", "ab"), remove("i4")]).await.unwrap();
    let told = shop.code("i9");
    assert_ne!(told, learnt);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // An older bundle has not learnt the new text, a later one has.
    for (version, created, code) in [("8", 0, &told), ("9", now + 3600, &learnt)] {
        shop.house.recommender.set_variant(shop.variant(version, created).await).unwrap();
        assert_eq!(&shop.code("i9"), code, "bundle {version}");
        let mut found = shop.answered(live()).await;
        found.sort();
        assert_eq!(found, ["i9", "new"], "bundle {version}");
    }
    shop.change(vec![remove("new")]).await.unwrap();
    shop.house.recommender.rollback("main").unwrap();
    assert_eq!(shop.code("i9"), told);
    assert_eq!(shop.answered(live()).await, ["i9"]);
    let all = shop.answered(RecommendRequest { k: 1000, ..viewed(&[3]) }).await;
    assert!(!all.contains(&"i4".to_owned()) && all.len() > 290);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_variant_has_no_place_for_is_refused_with_nothing_changed() {
    let shop = Shop::open(CatalogueConfig::default()).await;
    let mut odd = described("odd", "");
    odd.embedding = Some(vec![1.0]);
    let changes = vec![upsert("fine", "a"), CatalogChange::Upsert(Box::new(odd))];
    let Err(Failure::Invalid(wrong)) = shop.change(changes).await else { panic!("accepted") };
    assert_eq!(wrong[0].field, "items[1].embedding");
    let plain = variant("main", FakeModel::default(), index(300), &shop.house.metrics).await;
    shop.house.recommender.set_variant(plain).unwrap();
    let refused = shop.change(vec![upsert("fine", "a")]).await;
    assert!(matches!(refused, Err(Failure::Unmet { code: "NO_TOKENIZER", .. })), "{refused:?}");
    assert!(shop.change(vec![upsert("i9", "a")]).await.is_ok(), "a learnt item needs no place");
    assert!(matches!(shop.house.recommender.item("fine"), Err(Failure::UnknownItem(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_of_every_view_are_answered_while_items_come_and_go() {
    let shop = Arc::new(Shop::open(CatalogueConfig { max_overlay: 4, ..CatalogueConfig::default() }).await);
    let asking: Vec<_> = (0..3)
        .map(|caller| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move {
                for round in 0..60 {
                    let request =
                        RecommendRequest { k: 20, explain: round % 2 == 0, ..viewed(&[3 + caller, 20 + round]) };
                    assert_eq!(shop.answered(request).await.len(), 20);
                }
            })
        })
        .collect();
    for round in 0..40 {
        shop.change(vec![upsert(&format!("n{round}"), "a"), eligible(&format!("i{}", 100 + round), false)])
            .await
            .unwrap();
        assert!(shop.answered(live()).await.len() <= 10);
    }
    for asked in asking {
        asked.await.unwrap();
    }
    let all = shop.answered(RecommendRequest { k: 1000, ..live() }).await;
    assert_eq!(all.len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_listed_by_id_a_page_at_a_time_each_once() {
    let shop = Shop::open(CatalogueConfig::default()).await;
    shop.change(vec![upsert("a", ""), upsert("i10x", ""), upsert("zz", ""), remove("i5"), eligible("i6", false)])
        .await
        .unwrap();
    let mut expected: Vec<String> = (0..300).filter(|n| *n != 5).map(|n| format!("i{n}")).collect();
    expected.extend(["a", "i10x", "zz"].map(str::to_owned));
    expected.sort();
    for most in [1, 7, 302, 1000] {
        assert_eq!(shop.listed(most), expected, "{most} a page");
    }
    assert!(!shop.house.recommender.item("i6").unwrap().described.item.eligible);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_writes_and_too_many_are_refused() {
    let shop = Arc::new(Shop::open(CatalogueConfig { max_queue: 2, ..CatalogueConfig::default() }).await);
    let calls: Vec<_> = (0..40)
        .map(|call| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move { (call, shop.change(vec![upsert(&format!("n{call}"), "a")]).await) })
        })
        .collect();
    let mut taken = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            (call, Ok(_)) => taken.push(format!("n{call}")),
            (_, Err(failure)) => assert!(matches!(failure, Failure::Overloaded { .. }), "{failure:?}"),
        }
    }
    assert!(!taken.is_empty());
    let mut found = shop.answered(RecommendRequest { k: 1000, ..live() }).await;
    found.sort();
    taken.sort();
    assert_eq!(found, taken);
}
