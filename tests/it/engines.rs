//! The same promise on both engines of the ledger. Knows nothing of what is promised.

/// Makes two tests out of a function that takes a world: `name::sqlite` and `name::postgres`.
macro_rules! on_each_engine {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::world::World;

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                super::$name(World::new()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                super::$name(World::on_postgres()).await;
            }
        }
    )+};
}

pub(crate) use on_each_engine;
