import type {
  CountAgentsRequest_Filter,
  ListAgentsRequest_Filter,
} from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { Agent, type AgentMask } from '#rpc/gen/spire/api/types/agent.ts'
import type { X509SVID } from '#rpc/gen/spire/api/types/x509svid.ts'
import type { IssuedX509Svid } from '../ca/certificate-authority.ts'
import type { AttestedNodeRecord, NodeFilter } from '../datastore/datastore.ts'
import { idMessage, malformed, masked, parseSelectorMatch, selectorMessage } from './messages.ts'

const blank = Agent.create()

/** An attested node on the wire, with the fields of `mask`, or all. */
export function agentMessage(node: AttestedNodeRecord, mask?: AgentMask): Agent {
  return masked(
    {
      id: idMessage(node.agentId),
      attestationType: node.attestationType,
      x509svidSerialNumber: node.serialNumber,
      x509svidExpiresAt: node.expiresAtSeconds,
      selectors: node.selectors.map(selectorMessage),
      banned: node.serialNumber === '',
      canReattest: node.canReattest,
      agentVersion: node.agentVersion,
    },
    mask,
    blank,
  )
}

/** An issued X.509-SVID on the wire. */
export const x509SvidMessage = (svid: IssuedX509Svid, hint = ''): X509SVID => ({
  certChain: [...svid.certificates],
  id: idMessage(svid.spiffeId),
  expiresAt: svid.expiresAtSeconds,
  hint,
})

/** @throws AssayError `invalid-argument` for a filter that cannot be read; none is ever ignored. */
export function parseNodeFilter(
  filter: ListAgentsRequest_Filter | CountAgentsRequest_Filter | undefined,
): NodeFilter {
  if (filter === undefined) return {}
  const { byAttestationType, bySelectorMatch, byBanned, byCanReattest, byExpiresBefore } = filter
  return {
    ...(byAttestationType !== '' && { attestationType: byAttestationType }),
    ...(bySelectorMatch && { selectors: parseSelectorMatch(bySelectorMatch) }),
    ...(byBanned !== undefined && { banned: byBanned }),
    ...(byCanReattest !== undefined && { canReattest: byCanReattest }),
    ...(byExpiresBefore !== '' && { expiresBeforeSeconds: parseExpiresBefore(byExpiresBefore) }),
  }
}

/** `2006-01-02 15:04:05 -0700 -07`, as SPIRE's command line writes a time; the last part says nothing more. */
const spireTime = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) ([+-]\d\d)(\d\d)(?: [+-]?\w{1,6})?$/

/** Unix time of SPIRE's form of a time, or of RFC 3339. @throws AssayError `invalid-argument`. */
function parseExpiresBefore(text: string): number {
  const parts = spireTime.exec(text)
  const instant = parts === null ? text : `${parts[1]}T${parts[2]}${parts[3]}:${parts[4]}`
  try {
    return Math.floor(Temporal.Instant.from(instant).epochMilliseconds / 1000)
  } catch (error) {
    throw malformed('filter by expires_before', error)
  }
}
