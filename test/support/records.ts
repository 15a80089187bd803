import type { AttestedNodeRecord, InventoryRecord } from '#server/datastore/datastore.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { type Selector, selector, selectorSet } from '#spiffe/selector.ts'
import { type SpiffeId, spiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain, type TrustDomain } from '#spiffe/trust-domain.ts'

/** The trust domain of records made for tests. */
export const testTrustDomain: TrustDomain = parseTrustDomain('example.org')

/** The ID of a path in the tests' trust domain. */
export const testId = (path: string): SpiffeId => spiffeId(testTrustDomain, path)

/** The ID of an agent of the tests' trust domain. */
export const agentId = (name: string): SpiffeId => testId(`/spire/agent/join_token/${name}`)

/** Selectors of type `test`, in their set form. */
export const selectors = (...values: readonly string[]): readonly Selector[] =>
  selectorSet(values.map((value) => selector('test', value)))

/** An entry below agent `a` with selector `test:a`, except for what is given. */
export function newEntry(
  id: string,
  given: Partial<Omit<RegistrationEntry, 'id'>> = {},
): RegistrationEntry {
  return {
    spiffeId: testId(`/${id}`),
    parentId: agentId('a'),
    selectors: selectors('a'),
    x509SvidTtlSeconds: 0,
    jwtSvidTtlSeconds: 0,
    federatesWith: [],
    dnsNames: [],
    admin: false,
    downstream: false,
    storeSvid: false,
    hint: '',
    expiresAtSeconds: 0,
    revisionNumber: 0,
    createdAtSeconds: 1_767_225_600,
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
    ...given,
    id,
  }
}

/** A node in good standing, except for what is given. */
export function newNode(
  name: string,
  given: Partial<Omit<AttestedNodeRecord, 'agentId'>> = {},
): AttestedNodeRecord {
  return {
    attestationType: 'join_token',
    serialNumber: '1',
    expiresAtSeconds: 1_767_229_200,
    newSerialNumber: '',
    newExpiresAtSeconds: 0,
    canReattest: false,
    selectors: [],
    agentVersion: '',
    attestedAtSeconds: 1_767_225_600,
    ...given,
    agentId: agentId(name),
  }
}

/** A node that has attested by the TPM with that endorsement key, and whose SVID lasts. */
export const newTpmNode = (endorsementKeyHash: string): AttestedNodeRecord => ({
  ...newNode('tpm'),
  agentId: testId(`/spire/agent/tpm/${endorsementKeyHash}`),
  attestationType: 'tpm',
  canReattest: true,
  expiresAtSeconds: 4_000_000_000,
})

/** A bundle with one authority of each kind whose bytes are no real keys, except for what is given. */
export function newBundle(trustDomain: TrustDomain, given: Partial<Bundle> = {}): Bundle {
  return {
    trustDomain,
    x509Authorities: [{ certificate: Uint8Array.of(0x30, 0x00, 0xff), tainted: false }],
    jwtAuthorities: [
      {
        keyId: 'k1',
        publicKey: Uint8Array.of(0x30, 0x01, 0xfe),
        expiresAtSeconds: 1_767_229_200,
        tainted: true,
      },
    ],
    refreshHintSeconds: 60,
    sequenceNumber: 0n,
    ...given,
  }
}

/** An inventory record with a clock that needs all of its bits, except for what is given. */
export function newInventoryRecord(
  endorsementKeyHash: string,
  given: Partial<Omit<InventoryRecord, 'endorsementKeyHash'>> = {},
): InventoryRecord {
  return {
    state: 'allowed',
    nodeName: 'n1',
    lastAddress: '10.0.0.1:4000',
    firstSeenSeconds: 1,
    lastSeenSeconds: 2,
    description: 'a | "b"\n',
    clock: {
      resetCount: 2 ** 32 - 1,
      restartCount: 0,
      clock: 2n ** 64n - 1n,
      firmwareVersion: 2n ** 63n + 1n,
    },
    ...given,
    endorsementKeyHash,
  }
}
