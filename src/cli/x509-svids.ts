import type { X509Context } from '#workload-client/workload-api.ts'
import { type CommandContext, nowSeconds } from './command.ts'
import { blocks, count, fields, timeLeftText, timeText, timeValue } from './print.ts'

/** The X.509-SVIDs of a workload as `--json` prints them. */
export const x509Record = (x509: X509Context) => ({
  svids: x509.svids.map(({ spiffeId, certificates: [leaf], certificates, hint }) => ({
    spiffe_id: spiffeId,
    serial_number: leaf?.serialNumber,
    not_before: timeValue(leaf?.notBeforeSeconds ?? 0),
    not_after: timeValue(leaf?.notAfterSeconds ?? 0),
    dns_names: leaf?.dnsNames,
    certificates: certificates.length,
    ...(hint !== '' && { hint }),
  })),
  bundles: Object.fromEntries([...x509.bundles].map(([name, roots]) => [name, roots.length])),
})

/** The X.509-SVIDs of a workload, for people. */
export function printX509(context: CommandContext, x509: X509Context): void {
  const now = nowSeconds(context)
  const svids = x509.svids.map(({ spiffeId, certificates, hint }) => {
    const [leaf, ...intermediates] = certificates
    return fields([
      ['SPIFFE ID', spiffeId],
      ['Hint', hint],
      ['Serial', leaf?.serialNumber ?? ''],
      ['Valid from', timeText(leaf?.notBeforeSeconds ?? 0)],
      ['Valid until', timeLeftText(leaf?.notAfterSeconds ?? 0, now)],
      ['DNS names', leaf?.dnsNames.join(', ') ?? ''],
      [
        'Chain',
        intermediates.length === 0
          ? 'leaf only'
          : `leaf and ${count(intermediates.length, 'intermediate')}`,
      ],
    ])
  })
  const bundles = fields(
    [...x509.bundles].map(([name, roots]) => [
      `Bundle of ${name}`,
      count(roots.length, 'authority', 'authorities'),
    ]),
  )
  for (const line of blocks([...svids, bundles])) context.print(line)
}
