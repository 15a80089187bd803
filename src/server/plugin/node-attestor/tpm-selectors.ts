import { type Selector, selector, selectorSet } from '#spiffe/selector.ts'
import type { VerifiedEndorsementCertificate } from '#tpm/verify/endorsement-certificate.ts'
import type { VerifiedQuote } from '#tpm/verify/quote.ts'
import type { PcrSelection } from '#tpm/wire/pcr-selection.ts'
import { firmwareText, type TpmClaims, vendorText } from '#tpm/wire/vendor.ts'

/** What has been proved of a node. */
export interface ProvedNode {
  readonly hash: string
  /** The operator's; may be empty. */
  readonly nodeName: string
  /** Undefined where no authority vouches for one. */
  readonly certificate: VerifiedEndorsementCertificate | undefined
  readonly quote: VerifiedQuote
  readonly selection: PcrSelection
}

/**
 * `tpm:ek:<hash>`, `tpm:node:<name>`, `tpm:manufacturer:IFX` and `tpm:model:…` out of the certificate,
 * `tpm:firmware:7.2.3.1` out of the quote, `tpm:pcr:sha256:<index>:<hex>` for every register. Nothing a node
 * merely claims is among them.
 */
export function tpmSelectors(node: ProvedNode): readonly Selector[] {
  const { hash, nodeName, certificate, quote, selection } = node
  const facts = new Map([
    ['ek', hash],
    ['node', nodeName],
    ['manufacturer', certificate === undefined ? '' : certifiedVendor(certificate.manufacturer)],
    ['model', certificate?.model ?? ''],
    ['firmware', firmwareText(quote.firmwareVersion)],
  ])
  for (const [index, value] of quote.pcrs)
    facts.set(`pcr:${selection.bank}:${index}`, value.toHex())
  const known = [...facts].filter(([, value]) => value !== '')
  return selectorSet(known.map(([name, value]) => selector('tpm', `${name}:${value}`)))
}

/** A TPM's claims for the operator who is to approve it, at most 100 printable characters. */
export function describeClaims({ manufacturer, model, firmwareVersion }: TpmClaims): string {
  return `${vendorText(manufacturer)} ${model} firmware ${firmwareText(firmwareVersion)}`
}

/** `id:494E5458` as `INTX`; anything else as it stands. */
function certifiedVendor(manufacturer: string): string {
  const id = /^id:([0-9A-Fa-f]{8})$/.exec(manufacturer)?.[1]
  return id === undefined ? manufacturer : vendorText(Number.parseInt(id, 16))
}
