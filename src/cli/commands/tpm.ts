import { AssayError } from '#base/errors.ts'
import { describe, parseCertificate } from '#pki/certificate.ts'
import { loadTpmDescription, type TpmDescription } from '#tpm/device/description.ts'
import { type DeviceProblem, deviceProblems } from '#tpm/device/problems.ts'
import { type Command, type CommandContext, type Option, optional } from '../command.ts'
import { fields, timeText } from '../print.ts'

const options: readonly Option[] = [
  {
    name: 'tcti',
    value: 'TCTI',
    summary: 'the TPM, as in agent.yaml: device:/dev/tpmrm0 (default), tabrmd, swtpm:path=SOCKET',
  },
]

const load = (context: CommandContext): Promise<TpmDescription> =>
  loadTpmDescription(optional(context, 'tcti') ?? 'device:/dev/tpmrm0', context)

function certificateRecords(tpm: TpmDescription) {
  return tpm.endorsementKey.certificates.map((der) => {
    const certificate = parseCertificate(der, { lenient: true })
    return { certificate: describe(certificate), not_after: timeText(certificate.notAfterSeconds) }
  })
}

const record = (tpm: TpmDescription) => ({
  tcti: tpm.tcti,
  manufacturer: tpm.manufacturer,
  model: tpm.model,
  firmware: tpm.firmware,
  pcr_banks: tpm.pcrBanks,
  endorsement_key_hash: tpm.endorsementKey.hash,
  endorsement_key_profile: tpm.endorsementKey.profile,
  endorsement_certificates: certificateRecords(tpm),
})

function printTpm(context: CommandContext, tpm: TpmDescription): void {
  const [own, ...issuers] = certificateRecords(tpm)
  for (const line of fields([
    ['TPM', tpm.tcti],
    ['Maker', tpm.manufacturer],
    ['Model', tpm.model],
    ['Firmware', tpm.firmware],
    ['PCR banks', tpm.pcrBanks.join(', ')],
    ['Endorsement key', `${tpm.endorsementKey.hash} (${tpm.endorsementKey.profile})`],
    [
      'Certificate',
      own === undefined
        ? 'none: enrol this TPM by its key hash'
        : `${own.certificate}, until ${own.not_after}`,
    ],
    ...issuers.map(({ certificate }) => ['Issuer', certificate] as const),
  ])) {
    context.print(line)
  }
}

const show: Command = {
  name: 'tpm show',
  summary: 'what the TPM of this machine is',
  options,
  async run(context) {
    const tpm = await load(context)
    if (context.json) context.print(JSON.stringify(record(tpm)))
    else printTpm(context, tpm)
  },
}

const fingerprint: Command = {
  name: 'tpm fingerprint',
  summary: 'the hash of its endorsement key, by which the inventory knows it',
  options,
  async run(context) {
    const { endorsementKey } = await load(context)
    context.print(
      context.json
        ? JSON.stringify({ endorsement_key_hash: endorsementKey.hash })
        : endorsementKey.hash,
    )
  },
}

const doctor: Command = {
  name: 'tpm doctor',
  summary: 'whether an agent can attest with this TPM and, if not, what to do',
  options,
  details: 'Exit status 6 when it cannot.',
  async run(context) {
    try {
      const tpm = await load(context)
      const advice = [
        ...(tpm.pcrBanks.includes('sha256')
          ? []
          : ['its SHA-256 PCR bank is off: switch it on in the firmware setup']),
        ...(tpm.endorsementKey.certificates.length > 0
          ? []
          : [
              'it holds no endorsement certificate: enrol it by its key hash (assay inventory import)',
            ]),
      ]
      if (context.json) return context.print(JSON.stringify({ ok: true, advice, ...record(tpm) }))
      context.print('The TPM works: an agent can attest with it.')
      for (const line of advice) context.print(`Note: ${line}.`)
      context.print('')
      printTpm(context, tpm)
    } catch (error) {
      if (!(error instanceof AssayError)) throw error
      context.setStatus(6)
      const problem = deviceProblems[error.reason as DeviceProblem]
      if (context.json) {
        return context.print(
          JSON.stringify({
            ok: false,
            reason: error.reason,
            message: error.message,
            remedy: problem?.remedy,
          }),
        )
      }
      context.print(
        `An agent cannot attest with this TPM: ${problem?.meaning ?? error.message}. [${error.reason}]`,
      )
      // The message ends with the remedy, which has a line of its own here.
      context.print(`Seen: ${error.message.replace(`; ${problem?.remedy}`, '')}`)
      if (problem !== undefined) context.print(`Remedy: ${problem.remedy}.`)
    }
  },
}

export const commands: readonly Command[] = [show, fingerprint, doctor]
