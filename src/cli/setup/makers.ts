import { readFile, stat } from 'node:fs/promises'
import { messageOf } from '#base/errors.ts'
import { certificateFiles } from '#host/certificate-files.ts'
import { parsePem } from '#pki/pem.ts'
import { parseEndorsementAuthorities } from '#tpm/verify/endorsement-authorities.ts'
import { type CommandContext, nowSeconds, UsageError } from '../command.ts'
import { timeText } from '../print.ts'

/** What the unit of the server hides from it (systemd.exec(5), ProtectHome and PrivateTmp). */
const hiddenFromServer = /^\/(home|root|run\/user|tmp|var\/tmp)\//

/** What it means that there are no makers' certificates. */
export const withoutMakers =
  "no makers' certificates: nothing shows that a TPM is a chip and not a program, so approve only hashes that were read on the node itself (assay tpm fingerprint); --endorsement-ca adds makers later"

/**
 * Looks at certificates of TPM makers, a PEM file or a directory of .pem and .crt, as the server will, and says whose they
 * are.
 *
 * @throws UsageError that names every file that cannot be used and why.
 */
export async function checkMakers(context: CommandContext, path: string): Promise<void> {
  const wrong: string[] = []
  let certificates = 0
  for (const file of await filesAt(path)) {
    try {
      const { anchors } = parseEndorsementAuthorities(parsePem(await readFile(file), 'CERTIFICATE'))
      for (const { subjectText, notAfterSeconds, basicConstraints } of anchors) {
        certificates += 1
        const until = timeText(notAfterSeconds)
        context.note(`TPMs of ${subjectText} are believed, until ${until} (${file})`)
        if (basicConstraints?.isCa !== true)
          wrong.push(`${file}: ${subjectText} is no certificate authority`)
        else if (notAfterSeconds <= nowSeconds(context))
          context.note(`warning: ${subjectText} has expired, ${until}`)
      }
      const { mode } = await stat(file)
      if ((mode & 0o004) === 0 || hiddenFromServer.test(file))
        context.note(
          `warning: the user assay-server cannot read ${file}; /etc/assay/tpm-ca is a place`,
        )
    } catch (error) {
      wrong.push(`${file}: ${messageOf(error)}`)
    }
  }
  if (certificates === 0 && wrong.length === 0)
    wrong.push(`${path} holds no certificate (.pem or .crt)`)
  if (wrong.length > 0)
    throw new UsageError(`cannot use these certificates of TPM makers: ${wrong.join('; ')}`)
}

async function filesAt(path: string): Promise<readonly string[]> {
  try {
    return await certificateFiles(path)
  } catch (cause) {
    throw new UsageError(`cannot read the certificates of TPM makers: ${messageOf(cause)}`, {
      cause,
    })
  }
}
