"""The cost of verifying is measured for every form of token."""

from bench.verification import measure


async def test_every_form_has_its_cost() -> None:
    costs = {cost.form: cost for cost in await measure(3)}
    assert list(costs) == [
        "RS256",
        "ES256",
        "EdDSA",
        "did:key Ed25519",
        "did:key P-256",
        "did:key secp256k1",
        "did:pkh ES256K-R",
        "SIWE bearer",
        "wallet token",
        "agent's token",
    ]
    assert all(cost.first_sight > 0 and cost.remembered > 0 for cost in costs.values())
