import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type StatusFacts, statusText } from './status-text.ts'

const attested: StatusFacts = {
  state: 'ready',
  detail: '',
  agentId: 'spiffe://example.org/spire/agent/tpm/3f9a',
  streams: 3,
  entries: 12,
  renewsInSeconds: 1740,
}

describe('statusText()', () => {
  for (const [title, change, text] of [
    [
      'says what is served and when the SVID is renewed',
      {},
      'attested, serving 3 streams from 12 entries, SVID renews in 29 min, spiffe://example.org/spire/agent/tpm/3f9a',
    ],
    [
      'says why it is degraded before anything else',
      { state: 'degraded', detail: 'no word of the server: refused', streams: 1, entries: 1 },
      'degraded: no word of the server: refused, serving 1 stream from 1 entry, SVID renews in 29 min, spiffe://example.org/spire/agent/tpm/3f9a',
    ],
    [
      'counts in hours what is far away',
      { renewsInSeconds: 40_000 },
      'attested, serving 3 streams from 12 entries, SVID renews in 11 h, spiffe://example.org/spire/agent/tpm/3f9a',
    ],
    [
      'does not count what is due',
      { renewsInSeconds: -5 },
      'attested, serving 3 streams from 12 entries, SVID renews within a minute, spiffe://example.org/spire/agent/tpm/3f9a',
    ],
    [
      'says why the node is not attested',
      { state: 'attesting', detail: 'the TPM is pending', agentId: undefined },
      'not attested yet: the TPM is pending',
    ],
    [
      'says that there is no more to expect',
      { state: 'stopped', detail: 'the server has banned this node' },
      'stopped: the server has banned this node',
    ],
  ] as const) {
    it(title, () => assert.equal(statusText({ ...attested, ...change }), text))
  }
})
